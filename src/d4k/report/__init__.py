"""Pictures and scores as one folder of pages that any browser opens from the disk."""
