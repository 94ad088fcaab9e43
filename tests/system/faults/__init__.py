"""Real workers under random faults, and an oracle in SQL that says what was lost, doubled or left
behind."""
