"""The commands of `nelbo`, one subject a module."""
