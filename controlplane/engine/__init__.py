"""The one loop: events -> state -> snapshot -> cycle -> actions. Live and simulated alike."""
