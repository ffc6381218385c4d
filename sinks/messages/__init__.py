"""Messages to people: templates, and the channels they leave by."""
