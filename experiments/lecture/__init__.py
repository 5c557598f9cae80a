"""Chapter 4 of Raschka's book, computed again: what the notes print beside what comes out here."""
