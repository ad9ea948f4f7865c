revoke select (tokens_total), update (tokens_total) on user_sessions from alfred_engine;
