grant create on schema public to alfred_engine;
