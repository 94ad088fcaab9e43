"""`python -P -m nelbo.files read …`: the process that reads an upload."""

from nelbo.files.reading import main

if __name__ == "__main__":
    main()
