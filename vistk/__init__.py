"""Video instance segmentation research: one segmenter, interchangeable trackers, one evaluator."""
