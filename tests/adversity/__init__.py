"""The machine that kills: real processes against a sandbox under faults, and the books they must leave behind."""
