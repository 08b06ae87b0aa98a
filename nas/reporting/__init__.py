"""What a study has come to, in words, tables, figures and pages."""
