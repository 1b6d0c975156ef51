"""The scheduler, case by case; test_histories-style random ones follow at the end."""
