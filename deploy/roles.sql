-- The roles of a deployment. The service `roles` of docker-compose.yml runs this with psql, as the server's superuser,
-- before each migration. A second run changes nothing. The variables migrate, api and worker are the passwords.
--
-- nelbo_migrate owns the database and everything in it. nelbo_api and nelbo_worker may use the tables that `nelbo migrate`
-- grants to them (nelbo/store/grants.py). None is a superuser, so none can start programs or read files on the server.
\set ON_ERROR_STOP on
SET log_statement = 'none';
SET client_min_messages = 'warning';

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['nelbo_migrate', 'nelbo_api', 'nelbo_worker']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE nelbo_migrate LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT PASSWORD :'migrate';
ALTER ROLE nelbo_api LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT PASSWORD :'api';
ALTER ROLE nelbo_worker LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT PASSWORD :'worker';

SELECT format('ALTER DATABASE %I OWNER TO nelbo_migrate', current_database()) \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO nelbo_api, nelbo_worker', current_database()) \gexec
REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;
ALTER SCHEMA public OWNER TO nelbo_migrate;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO nelbo_api, nelbo_worker;

-- Give nelbo_migrate the tables of an older deployment, which had a single role.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER TABLE %s OWNER TO nelbo_migrate', oid::regclass)
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
        UNION ALL
        SELECT format('ALTER FUNCTION %s OWNER TO nelbo_migrate', oid::regprocedure)
        FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'nelbo%'
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;
