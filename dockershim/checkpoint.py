"""What dockershim keeps on disk."""
