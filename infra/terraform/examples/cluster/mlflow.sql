-- MLflow's own user, and its database's owner.  psql -v password=... -f mlflow.sql, as the administrator; again sets a new password.
SELECT 'CREATE ROLE mlflow LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mlflow') \gexec
ALTER ROLE mlflow PASSWORD :'password';
-- RDS's administrator is no superuser: to give a database away it must belong to the new owner.
GRANT mlflow TO CURRENT_USER;
ALTER DATABASE mlflow OWNER TO mlflow;
REVOKE ALL ON DATABASE mlflow FROM PUBLIC;
