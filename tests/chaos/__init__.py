"""
Real nodes under faults: one copy of the data has to explain all answers.
"""
