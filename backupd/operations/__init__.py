"""Operations: one module per verb. Each takes domain objects, reports progress as events, and returns a report."""
