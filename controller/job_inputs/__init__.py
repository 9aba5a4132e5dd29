"""What users hand in as a job's rows: checked against the model, and read by place whatever the file was."""
