"""Alert: tell whoever is on duty, once, and never fall silent."""
