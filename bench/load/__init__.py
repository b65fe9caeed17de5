"""`condu bench load`: many clients at once for minutes, and what they meet with and it still holds."""
