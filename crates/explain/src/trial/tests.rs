mod ambient;
mod differences;
mod evaluator;
mod meaning;
