from semfield_ns.cli import main

if __name__ == "__main__":
    main()
