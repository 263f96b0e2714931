"""Pictures, verdicts and shaded text, from rows alone: nothing here ever sees a model."""
