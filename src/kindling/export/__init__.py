"""Export: a trained model as one file, checked against its checkpoint."""
