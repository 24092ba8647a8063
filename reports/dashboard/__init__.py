"""What a user of Weights & Biases opens: a workspace for each experiment and a report, and how both will look."""
