"""What is in each box? GoogLeNet as region classifier: regions -> class scores -> detections."""
