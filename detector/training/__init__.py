"""From annotated images to a detector: data, regions, SVMs, fine-tuning and pretraining."""
