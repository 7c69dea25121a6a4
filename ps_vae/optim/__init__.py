"""Update rules and schedules: pure, state in and state out."""
