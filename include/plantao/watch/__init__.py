"""The watchdog: what is late, gone, stuck or silent."""
