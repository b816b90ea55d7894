"""pixtell turns pictures into sentences."""
