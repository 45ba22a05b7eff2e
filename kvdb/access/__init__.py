"""Who may do what: users, their secrets and roles."""
