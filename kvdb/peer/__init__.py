"""Messages between members, as frames over TCP."""
