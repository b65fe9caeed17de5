"""Fine-tuning one task from the base: a plain loop in a process of its own, which goes on after a kill."""
