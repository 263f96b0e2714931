"""lm-evaluation-harness under our interventions: its model, and the embedded model's tasks."""
