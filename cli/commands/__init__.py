"""The commands of `condu`, a file a family. They know HTTP only; what is heavy is imported when it runs."""
