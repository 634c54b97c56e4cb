"""What is looked at in a text: words and phrases, its language, regular expressions in linear time."""
