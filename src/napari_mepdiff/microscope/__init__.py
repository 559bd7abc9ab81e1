"""What the microscope really did: probe and positions, refined, saved and used again."""
