"""``TrainingJob``: objects become jobs of the control plane, and their state comes back."""
