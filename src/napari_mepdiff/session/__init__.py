"""What a user has open: measurement, choices, runs, their record. No Qt."""
