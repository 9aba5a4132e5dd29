"""What becomes of a job's answers. Pure: folds over computed shards, whose order changes no bit of the result."""
