// Lets main.go name a function that is not exported.
