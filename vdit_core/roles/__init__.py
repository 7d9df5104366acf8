"""What each head looks at: measured, named, and chosen by name."""
