"""What `oho-bench watch` shows: a results folder that is being filled."""
