"""Many runs: plans, recipes, results, reports and published figures."""
