"""CoachHooK's hook layers: `serving` is the editor that serves, `paper` the method as it was published."""
