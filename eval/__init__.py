"""How good is it? Average precision and recall under the rules of the field's benchmarks."""
