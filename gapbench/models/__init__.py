"""The nets: a backbone both arms share, and a head, the only thing in which they differ."""
