"""The cost model against what others measured or estimate: the calibration table, and Arm's Vela."""
