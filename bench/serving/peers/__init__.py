"""Other ways to serve the same models, each as its own documents show it, in a process of its own."""
