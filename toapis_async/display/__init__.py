"""How results and progress look in notebooks and terminals. Knows only words, links and paths: whoever has a task, a
generation or a batch to show says what there is of it."""
