"""Review: what a team does with a queue beside looking and deciding one by one: files of decisions in, the queue out."""
