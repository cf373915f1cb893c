"""The text of messages: cleaning, rendering, links, and what error codes mean. No I/O."""
